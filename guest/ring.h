/* The last part of a command's output, both channels in the order in which they were read, with byte offsets.
 *
 * A ring is read by one reader at most. What is over the limit goes from the old end, also when the reader has not
 * seen it yet: ring_overrun says so. */
#ifndef MITOS_RING_H
#define MITOS_RING_H

#include "link.h"

enum {
	RING_LIMIT = 8 << 20,        /* of one ring whose command is kept, bookkeeping included */
	RING_SHORT_LIMIT = 256 << 10, /* of any other: what its reader may not have seen yet, and a little more */
	RING_TOTAL_LIMIT = 32 << 20, /* of all rings of a sandbox */
};

struct chunk;

struct ring {
	struct chunk *first, *last, *at; /* `at` may be NULL: looked up from the cursor */
	uint64_t start, end;             /* offsets of the first byte that is kept and of the next to come */
	uint64_t cursor;                 /* the next byte for the reader */
	size_t held, limit;              /* memory taken, and how much may be */
};

void ring_append(struct ring *ring, enum channel channel, const uint8_t *data, size_t size);
/* Sets the reader to an offset, or to the closest one that is kept. Returns how many bytes were skipped. */
uint64_t ring_seek(struct ring *ring, uint64_t offset);
/* The next bytes for the reader, all of one channel; 0 when it has seen everything. */
size_t ring_peek(struct ring *ring, enum channel *channel, const uint8_t **data);
void ring_advance(struct ring *ring, size_t size);
/* Frees the oldest piece; false when there is none. */
bool ring_drop(struct ring *ring);
void ring_free(struct ring *ring);
/* Memory of all rings. */
size_t ring_total(void);

static inline bool ring_overrun(const struct ring *ring)
{
	return ring->cursor < ring->start;
}

#endif
