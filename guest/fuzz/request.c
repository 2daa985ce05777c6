/* What requests are checked for before anything is done: EXEC, exec_request.c, and IDENTIFY, identity.c, of which only
 * the check is called. */
#include "../identity.c"

#include "exec_request.h"

const struct operation *const operations[] = {NULL};
const size_t operation_count = 1;

/* Of what identity.c does after its check, nothing is there. */
void kernel_identify(const uint8_t *entropy, const uint8_t *id, struct fields fields)
{
	(void)entropy, (void)id, (void)fields;
	abort();
}
bool kernel_all_confirmed(void) { abort(); }
void hook_prepare(void) { abort(); }
void hook_pump(void) { abort(); }
void hook_start(void) { abort(); }
enum hook_state hook_state(void) { abort(); }
const char *hook_path(void) { abort(); }
const char *hook_failure(void) { abort(); }
void relay_part(void) { abort(); }

static void check_strings(char **strings, bool are_variables)
{
	for (; *strings; strings++)
		if (are_variables && !strchr(*strings, '='))
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fields fields = {data, data + size};
	if (!fields_valid(fields))
		return 0;
	struct field field;
	if (!find_fault(fields) && fields_find(fields, TAG_HOSTNAME, &field) && field.length > HOSTNAME_LIMIT)
		abort();
	struct exec_request request = {0};
	if (!exec_request_read(fields, &request)) {
		check_strings(request.argv, false);
		check_strings(request.environment, true);
		if (!request.argv[0] || request.directory[0] != '/' || (request.keep && !request.id))
			abort();
	}
	exec_request_free(&request);
	return 0;
}
