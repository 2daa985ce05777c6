/* Pseudo-terminals: opening them, their size, and what typed control characters mean.
 *
 * A terminal's line discipline turns Ctrl-C into a signal, drops the character and what was typed before it. gVisor's
 * sends the signal but leaves the character for the program to read, not even that while a line typed ahead waits;
 * it also sends signals to programs that asked for none, and tells nobody of a new size. So these are done here; on a
 * kernel that does them itself nothing changes. */
#ifndef MITOS_TERMINAL_H
#define MITOS_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { TERMINAL_PATH_SIZE = 32 };

/* Opens a pair of the given size; `path` names the program's end. Neither descriptor is left open on failure. */
bool terminal_open(int *ours, int *theirs, char path[TERMINAL_PATH_SIZE], uint64_t cols, uint64_t rows);
/* True when the size is another one than before. */
bool terminal_resize(int terminal, uint64_t cols, uint64_t rows);

/* What typing a character means. */
struct terminal_input {
	int signal;    /* this signal for the foreground group, and the character goes nowhere; or 0 */
	uint8_t erase; /* the character that takes back typed ones, or 0 when nothing is to be taken back */
	bool echo;     /* the character is to be shown, as ^C */
};

struct terminal_input terminal_interpret(int terminal, uint8_t character);
/* Writes the bytes up to the first that means a signal; returns what write does. */
ssize_t terminal_write(int terminal, const uint8_t *data, size_t size);
/* How many characters of a line that is being typed there are once `data` is written, `before` there were so many. */
size_t terminal_line_length(int terminal, size_t before, const uint8_t *data, size_t size);

#endif
