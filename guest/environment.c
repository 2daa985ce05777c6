#define _GNU_SOURCE
#include "environment.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char **current; /* NULL until the first change: then PID 1's own still holds */

static size_t count_strings(char **strings)
{
	size_t count = 0;
	while (strings[count])
		count++;
	return count;
}

static char **copy_current(void)
{
	char **source = current ? current : environ;
	size_t count = count_strings(source);
	char **copy = must_allocate((count + 1) * sizeof *copy);
	for (size_t i = 0; i < count; i++)
		copy[i] = must_copy(source[i], strlen(source[i]));
	return copy;
}

static size_t find_name(char **environment, const char *variable)
{
	size_t length = strcspn(variable, "=") + 1, i = 0;
	while (environment[i] && strncmp(environment[i], variable, length) != 0)
		i++;
	return i;
}

static char **set_variable(char **environment, char *variable)
{
	size_t place = find_name(environment, variable);
	if (environment[place]) {
		free(environment[place]);
		environment[place] = variable;
		return environment;
	}
	environment = realloc(environment, (place + 2) * sizeof *environment);
	if (!environment)
		exit(1);
	environment[place] = variable;
	environment[place + 1] = NULL;
	return environment;
}

static char **set_fields(char **environment, struct fields fields)
{
	struct field field;
	while (fields_next(&fields, &field) > 0)
		if (field.tag == TAG_ENV)
			environment = set_variable(environment, field_copy_text(&field));
	return environment;
}

bool environment_valid(struct fields fields)
{
	struct field field;
	while (fields_next(&fields, &field) > 0) {
		if (field.tag != TAG_ENV)
			continue;
		if (field.length == 0 || memchr(field.value, 0, field.length))
			return false;
		const uint8_t *equals = memchr(field.value, '=', field.length);
		if (!equals || equals == field.value)
			return false;
	}
	return true;
}

void environment_change(struct fields fields)
{
	char **changed = set_fields(copy_current(), fields);
	if (current)
		environment_free(current);
	current = changed;
}

char **environment_make(struct fields fields, const char *terminal)
{
	char **environment = copy_current();
	if (terminal) {
		char *variable = must_allocate(strlen(terminal) + 6);
		strcpy(variable, "TERM=");
		strcat(variable, terminal);
		environment = set_variable(environment, variable);
	}
	return set_fields(environment, fields);
}

void environment_free(char **environment)
{
	for (char **variable = environment; *variable; variable++)
		free(*variable);
	free(environment);
}
