#define _GNU_SOURCE
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* The most a line that is being typed may hold, as in Linux. */
enum { LINE_LIMIT = 4095 };

bool terminal_open(int *ours, int *theirs, char path[TERMINAL_PATH_SIZE], uint64_t cols, uint64_t rows)
{
	int unlocked = 0, number;
	*theirs = -1;
	*ours = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (*ours < 0)
		return false;
	if (ioctl(*ours, TIOCSPTLCK, &unlocked) == 0 && ioctl(*ours, TIOCGPTN, &number) == 0) {
		snprintf(path, TERMINAL_PATH_SIZE, "/dev/pts/%d", number);
		*theirs = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	}
	if (*theirs < 0) {
		close(*ours);
		*ours = -1;
		return false;
	}
	terminal_resize(*ours, cols, rows);
	return true;
}

bool terminal_resize(int terminal, uint64_t cols, uint64_t rows)
{
	struct winsize before = {0}, size = {
		.ws_col = cols > 0xffff ? 0xffff : (unsigned short)cols,
		.ws_row = rows > 0xffff ? 0xffff : (unsigned short)rows,
	};
	ioctl(terminal, TIOCGWINSZ, &before);
	ioctl(terminal, TIOCSWINSZ, &size);
	return before.ws_col != size.ws_col || before.ws_row != size.ws_row;
}

static int signal_of(const struct termios *modes, uint8_t character)
{
	if (character == _POSIX_VDISABLE)
		return 0;
	if (character == modes->c_cc[VINTR])
		return SIGINT;
	if (character == modes->c_cc[VQUIT])
		return SIGQUIT;
	return character == modes->c_cc[VSUSP] ? SIGTSTP : 0;
}

struct terminal_input terminal_interpret(int terminal, uint8_t character)
{
	struct terminal_input input = {0};
	struct termios modes;
	if (tcgetattr(terminal, &modes) < 0 || !(modes.c_lflag & ISIG))
		return input;
	input.signal = signal_of(&modes, character);
	input.echo = modes.c_lflag & ECHO;
	if ((modes.c_lflag & ICANON) && !(modes.c_lflag & NOFLSH))
		input.erase = modes.c_cc[VERASE];
	return input;
}

static size_t plain_length(const struct termios *modes, const uint8_t *data, size_t size)
{
	size_t length = 0;
	while (length < size && !signal_of(modes, data[length]))
		length++;
	return length;
}

static bool are_equal(const struct termios *left, const struct termios *right)
{
	return left->c_iflag == right->c_iflag && left->c_oflag == right->c_oflag &&
	       left->c_cflag == right->c_cflag && left->c_lflag == right->c_lflag &&
	       memcmp(left->c_cc, right->c_cc, sizeof left->c_cc) == 0;
}

static uint8_t absent_byte(const uint8_t *data, size_t size)
{
	uint8_t absent = UINT8_MAX;
	while (absent > 0 && memchr(data, absent, size))
		absent--;
	return absent;
}

/* Writes characters that would mean a signal if the program had not switched that off: meanwhile other characters mean
 * it. What the program changes in between stays. */
static ssize_t write_literal(int terminal, const struct termios *modes, const uint8_t *data, size_t size)
{
	struct termios moved = *modes, now;
	if (size > UINT8_MAX)
		size = UINT8_MAX;
	moved.c_cc[VINTR] = moved.c_cc[VQUIT] = moved.c_cc[VSUSP] = absent_byte(data, size);
	tcsetattr(terminal, TCSANOW, &moved);
	ssize_t taken = write(terminal, data, size);
	int error = errno;
	if (tcgetattr(terminal, &now) == 0 && are_equal(&now, &moved))
		tcsetattr(terminal, TCSANOW, modes);
	errno = error;
	return taken;
}

ssize_t terminal_write(int terminal, const uint8_t *data, size_t size)
{
	struct termios modes;
	size_t plain = tcgetattr(terminal, &modes) < 0 ? size : plain_length(&modes, data, size);
	if (plain < size && !(modes.c_lflag & ISIG))
		return write_literal(terminal, &modes, data, size);
	return write(terminal, data, plain);
}

size_t terminal_line_length(int terminal, size_t before, const uint8_t *data, size_t size)
{
	struct termios modes;
	if (tcgetattr(terminal, &modes) < 0 || !(modes.c_lflag & ICANON))
		return 0;
	for (size_t i = 0; i < size; i++) {
		bool ends = data[i] == '\n' || data[i] == '\r' || data[i] == modes.c_cc[VEOF];
		before = ends ? 0 : before + 1;
	}
	return before < LINE_LIMIT ? before : LINE_LIMIT;
}
