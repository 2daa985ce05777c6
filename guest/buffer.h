/* A growable queue of bytes: appended at the end, consumed from the start. */
#ifndef MITOS_BUFFER_H
#define MITOS_BUFFER_H

#include <stddef.h>
#include <stdint.h>

struct buffer {
	uint8_t *storage;
	size_t start, end, capacity;
};

/* Makes room for `size` more bytes and returns where they go; they count once committed. */
uint8_t *buffer_reserve(struct buffer *buffer, size_t size);
void buffer_commit(struct buffer *buffer, size_t size);
void buffer_append(struct buffer *buffer, const void *data, size_t size);
void buffer_consume(struct buffer *buffer, size_t size);
void buffer_free(struct buffer *buffer);

static inline size_t buffer_size(const struct buffer *buffer)
{
	return buffer->end - buffer->start;
}

static inline const uint8_t *buffer_data(const struct buffer *buffer)
{
	return buffer->storage + buffer->start;
}

/* Like malloc and strdup, but end the program when memory is out: PID 1 cannot go on without. */
void *must_allocate(size_t size);
char *must_copy(const void *data, size_t size);

#endif
