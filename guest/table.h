/* What /proc says of the sandbox's processes. */
#ifndef MITOS_TABLE_H
#define MITOS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PROCESS_NAME_SIZE = 64 };

struct table_entry {
	pid_t id, parent;
	char state; /* as in /proc/<id>/stat */
	char name[PROCESS_NAME_SIZE];
	uint64_t cpu_ns, start_ticks, resident_bytes;
	bool within, stopped; /* the reader's own marks, false at first */
};

struct table {
	struct table_entry *entries;
	size_t count, capacity;
};

/* Reads all processes anew into `table`; it starts as zeros. Those that end meanwhile may be missing. */
void table_read(struct table *table);
void table_free(struct table *table);

#endif
