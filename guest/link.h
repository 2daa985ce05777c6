/* The guest link's codec, spec/guest-link.md sections 1 and 2: bytes in, frames out; no descriptors, no time.
 *
 *     header: length u32 | stream u32 | type u8 | channel u8 | zero u16   (big-endian), then the payload
 *     fields: tag u8 | length u32 | value, repeated
 *
 * stream.c keeps the streams and moves the bytes. src/mitos/wire/link.py is the other end. */
#ifndef MITOS_LINK_H
#define MITOS_LINK_H

#include "buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	LINK_VERSION = 1,
	HEADER_SIZE = 12,
	FIELD_HEADER_SIZE = 5,
	PAYLOAD_LIMIT = 1 << 20,
	DATA_LIMIT = 1 << 16,
	INITIAL_CREDIT = 1 << 18,
};

enum frame_type {
	FRAME_HELLO = 1,
	FRAME_OPEN,
	FRAME_DATA,
	FRAME_EOF,
	FRAME_CREDIT,
	FRAME_CONTROL,
	FRAME_CLOSE,
	FRAME_CANCEL,
	FRAME_FREEZE,
	FRAME_FROZEN,
	FRAME_THAW,
	FRAME_PING,
	FRAME_PONG,
};

enum operation_code {
	OPERATION_IDENTIFY = 1,
	OPERATION_EXEC,
	OPERATION_READ_FILE,
	OPERATION_WRITE_FILE,
	OPERATION_LIST,
	OPERATION_STAT,
	OPERATION_MKDIR,
	OPERATION_REMOVE,
	OPERATION_RUN_CODE,
	OPERATION_PROCESSES = 10,
	OPERATION_SIGNAL = 11,
	OPERATION_VITALS = 12,
	OPERATION_WATCH = 13,
	OPERATION_DIAL = 14,
	OPERATION_ACCEPT = 15,
	OPERATION_ATTACH = 16,
	OPERATION_COMMANDS = 19,
	OPERATION_END_COMMAND = 20,
};

enum channel { CHANNEL_INPUT, CHANNEL_OUTPUT, CHANNEL_ERROR };
enum status { STATUS_OK, STATUS_FAILED, STATUS_CANCELED, STATUS_INVALID, STATUS_UNAVAILABLE };
enum control { CONTROL_RESIZE = 1, CONTROL_SIGNAL, CONTROL_FORK_REPLY };

enum tag {
	TAG_VERSION = 1,
	TAG_BUILD = 2,
	TAG_ERRNO = 3,
	TAG_MESSAGE = 4,
	TAG_SANDBOX_ID = 5,
	TAG_GENERATION = 6,
	TAG_ENTROPY = 7,
	TAG_WALL_CLOCK = 8,
	TAG_HOSTNAME = 9,
	TAG_MACHINE_ID = 10,
	TAG_TOKEN = 11,
	TAG_FORKED = 12,
	TAG_ENV = 13,
	TAG_ARG = 14,
	TAG_CWD = 15,
	TAG_TIMEOUT = 16,
	TAG_STDIN = 17,
	TAG_COLS = 18,
	TAG_ROWS = 19,
	TAG_TERM = 20,
	TAG_PATH = 21,
	TAG_MODE = 22,
	TAG_SIZE = 23,
	TAG_MTIME = 24,
	TAG_OFFSET = 25,
	TAG_RECURSIVE = 26,
	TAG_NAME = 27,
	TAG_LINK_TARGET = 28,
	TAG_LANGUAGE = 30,
	TAG_PID = 31,
	TAG_SIGNAL = 32,
	TAG_EXIT_CODE = 33,
	TAG_TIMED_OUT = 34,
	TAG_DURATION = 35,
	TAG_PORT = 36,
	TAG_COMMAND_ID = 37,
	TAG_LOST = 38,
	TAG_KEEP = 40,
	TAG_COMMAND = 41,
	TAG_ENDED = 42,
	TAG_CHANGE = 45,
	TAG_NEW_PATH = 46,
	TAG_PARENT_PID = 60,
	TAG_STATE = 61,
	TAG_CPU_TIME = 62,
	TAG_RESIDENT = 63,
	TAG_START_TIME = 64,
	TAG_CLOCK = 65,
	TAG_PROCESS_COUNT = 66,
};

struct frame {
	uint32_t stream, length;
	uint8_t type, channel;
	const uint8_t *payload; /* inside the bytes that were decoded */
};

enum decode_result { DECODE_FRAME, DECODE_MORE, DECODE_VIOLATION };

/* Reads one frame from the start of `data`. On DECODE_FRAME it is HEADER_SIZE + frame->length bytes long;
 * on DECODE_VIOLATION `*reason` says what the document does not allow. */
enum decode_result frame_decode(const uint8_t *data, size_t size, struct frame *frame, const char **reason);

/* Writes the header of a frame into HEADER_SIZE bytes. */
void frame_header(uint8_t *out, enum frame_type type, uint32_t stream, uint8_t channel, uint32_t length);

struct field {
	uint8_t tag;
	uint32_t length;
	const uint8_t *value;
};

struct fields {
	const uint8_t *at, *end;
};

/* Steps to the next field: 1 with a field, 0 at the end, -1 when a field runs past the end. */
int fields_next(struct fields *fields, struct field *field);
bool fields_valid(struct fields fields);
/* The last field with the tag; false when there is none. */
bool fields_find(struct fields fields, enum tag tag, struct field *field);
/* The last value of an integer field, or `fallback`; false when it is not 8 bytes long. */
bool fields_uint(struct fields fields, enum tag tag, uint64_t fallback, uint64_t *value);

void field_put(struct buffer *out, enum tag tag, const void *value, size_t length);
void field_put_text(struct buffer *out, enum tag tag, const char *text);
void field_put_uint(struct buffer *out, enum tag tag, uint64_t value);

uint32_t load_u32(const uint8_t *in);
uint64_t load_u64(const uint8_t *in);
void store_u32(uint8_t *out, uint32_t value);
void store_u64(uint8_t *out, uint64_t value);

#endif
