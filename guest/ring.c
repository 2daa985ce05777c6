#include "ring.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The smallest keeps the bookkeeping of many short lines low, the largest is used again when it is dropped. */
enum { CHUNK_SMALLEST = 256 };

struct chunk {
	struct chunk *next;
	uint64_t offset;
	uint32_t size, capacity;
	enum channel channel;
	uint8_t data[];
};

static size_t total;
static struct chunk *spare; /* of the largest capacity: a flood then allocates nothing */

static size_t footprint(const struct chunk *chunk)
{
	return sizeof *chunk + chunk->capacity;
}

static struct chunk *make_chunk(size_t size)
{
	struct chunk *chunk = spare;
	if (chunk && size > DATA_LIMIT / 2) {
		spare = NULL;
		return chunk;
	}
	uint32_t capacity = CHUNK_SMALLEST;
	while (capacity < size)
		capacity *= 2;
	chunk = malloc(sizeof *chunk + capacity);
	if (!chunk) {
		fputs("mitos agent: out of memory\n", stderr);
		exit(1);
	}
	chunk->capacity = capacity;
	return chunk;
}

static void add_chunk(struct ring *ring, enum channel channel, size_t size)
{
	struct chunk *chunk = make_chunk(size);
	chunk->next = NULL;
	chunk->offset = ring->end;
	chunk->size = 0;
	chunk->channel = channel;
	*(ring->last ? &ring->last->next : &ring->first) = chunk;
	ring->last = chunk;
	ring->held += footprint(chunk);
	total += footprint(chunk);
}

bool ring_drop(struct ring *ring)
{
	struct chunk *chunk = ring->first;
	if (!chunk)
		return false;
	ring->first = chunk->next;
	if (ring->last == chunk)
		ring->last = NULL;
	if (ring->at == chunk)
		ring->at = NULL;
	ring->start = chunk->offset + chunk->size;
	ring->held -= footprint(chunk);
	total -= footprint(chunk);
	if (!spare && chunk->capacity == DATA_LIMIT)
		spare = chunk;
	else
		free(chunk);
	return true;
}

void ring_append(struct ring *ring, enum channel channel, const uint8_t *data, size_t size)
{
	while (size > 0) {
		if (!ring->last || ring->last->channel != channel || ring->last->size == ring->last->capacity)
			add_chunk(ring, channel, size < DATA_LIMIT ? size : DATA_LIMIT);
		struct chunk *chunk = ring->last;
		size_t part = chunk->capacity - chunk->size;
		part = part < size ? part : size;
		memcpy(chunk->data + chunk->size, data, part);
		chunk->size += (uint32_t)part;
		ring->end += part;
		data += part;
		size -= part;
	}
	while (ring->held > ring->limit)
		ring_drop(ring);
}

uint64_t ring_seek(struct ring *ring, uint64_t offset)
{
	uint64_t wanted = offset < ring->end ? offset : ring->end;
	ring->cursor = wanted > ring->start ? wanted : ring->start;
	ring->at = NULL;
	return ring->cursor - wanted;
}

static void find_chunk(struct ring *ring)
{
	if (!ring->at)
		ring->at = ring->first;
	while (ring->at->offset + ring->at->size <= ring->cursor)
		ring->at = ring->at->next;
}

size_t ring_peek(struct ring *ring, enum channel *channel, const uint8_t **data)
{
	if (ring->cursor == ring->end || ring_overrun(ring))
		return 0;
	find_chunk(ring);
	size_t seen = (size_t)(ring->cursor - ring->at->offset);
	*channel = ring->at->channel;
	*data = ring->at->data + seen;
	return ring->at->size - seen;
}

void ring_advance(struct ring *ring, size_t size)
{
	ring->cursor += size;
}

void ring_free(struct ring *ring)
{
	while (ring_drop(ring))
		;
}

size_t ring_total(void)
{
	return total;
}
