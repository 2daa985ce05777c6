#include "exec_request.h"

#include "environment.h"

#include <stdlib.h>
#include <string.h>

static bool read_arguments(struct fields fields, struct exec_request *request)
{
	struct field field;
	size_t count = 0;
	request->argv = must_allocate(sizeof *request->argv);
	while (fields_next(&fields, &field) > 0) {
		if (field.tag != TAG_ARG)
			continue;
		char *argument = field_copy_text(&field);
		if (!argument)
			return false;
		request->argv = realloc(request->argv, (count + 2) * sizeof *request->argv);
		if (!request->argv)
			exit(1);
		request->argv[count++] = argument;
		request->argv[count] = NULL;
	}
	return count > 0;
}

static bool read_text(struct fields fields, enum tag tag, char **text)
{
	struct field field;
	if (!fields_find(fields, tag, &field))
		return true;
	*text = field_copy_text(&field);
	return *text != NULL;
}

/* "" and relative directories are meant beneath /workspace. */
static char *resolve_directory(const char *directory)
{
	if (directory && directory[0] == '/')
		return must_copy(directory, strlen(directory));
	char *resolved = must_allocate(strlen("/workspace/") + (directory ? strlen(directory) : 0) + 1);
	strcpy(resolved, "/workspace");
	if (directory && directory[0]) {
		strcat(resolved, "/");
		strcat(resolved, directory);
	}
	return resolved;
}

const char *exec_request_read(struct fields fields, struct exec_request *request)
{
	if (!read_arguments(fields, request))
		return "there is no argument, or one holds a NUL byte";
	if (!read_text(fields, TAG_CWD, &request->directory))
		return "the directory holds a NUL byte";
	if (!read_text(fields, TAG_TERM, &request->terminal))
		return "the terminal's name holds a NUL byte";
	if (!read_text(fields, TAG_COMMAND_ID, &request->id) ||
	    (request->id && strlen(request->id) - 1 >= COMMAND_ID_LIMIT))
		return "the command's id is not 1 to 64 bytes without a NUL";
	if (!environment_valid(fields))
		return "a variable is not NAME=value, or holds a NUL byte";
	if (!fields_uint(fields, TAG_TIMEOUT, 0, &request->timeout_ms) ||
	    !fields_uint(fields, TAG_STDIN, 0, &request->has_input) ||
	    !fields_uint(fields, TAG_KEEP, 0, &request->keep) || !fields_uint(fields, TAG_COLS, 80, &request->cols) ||
	    !fields_uint(fields, TAG_ROWS, 24, &request->rows))
		return "an integer field is not 8 bytes long";
	if (request->keep && !request->id)
		return "a command that is kept needs an id";
	char *directory = resolve_directory(request->directory);
	free(request->directory);
	request->directory = directory;
	if (request->terminal && !request->terminal[0]) {
		free(request->terminal);
		request->terminal = must_copy("xterm-256color", 14);
	}
	request->environment = environment_make(fields, request->terminal);
	return NULL;
}

void exec_request_free(struct exec_request *request)
{
	if (request->argv)
		environment_free(request->argv);
	if (request->environment)
		environment_free(request->environment);
	free(request->id);
	free(request->directory);
	free(request->terminal);
}
