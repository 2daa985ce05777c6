#define _GNU_SOURCE
#include "poller.h"

#include "buffer.h"

#include <poll.h>
#include <stdlib.h>
#include <time.h>

static struct pollfd *descriptors;
static size_t count, capacity;
static int64_t wake_at;

static bool clock_held;
static int64_t held_at_ns;     /* what the clock says while it is held */
static int64_t stood_still_ns; /* how far it is behind the kernel's */

static int64_t kernel_clock_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_ns(void)
{
	return clock_held ? held_at_ns : kernel_clock_ns() - stood_still_ns;
}

void clock_hold(void)
{
	held_at_ns = clock_ns();
	clock_held = true;
}

/* What the kernel's clock did meanwhile does not matter: in a restored sandbox it may have jumped. */
void clock_release(void)
{
	if (clock_held)
		stood_still_ns = kernel_clock_ns() - held_at_ns;
	clock_held = false;
}

void poller_reset(void)
{
	count = 0;
	wake_at = INT64_MAX;
}

int poller_add(int descriptor, short events)
{
	if (count == capacity) {
		capacity = capacity ? capacity * 2 : 64;
		descriptors = realloc(descriptors, capacity * sizeof *descriptors);
		if (!descriptors)
			exit(1);
	}
	descriptors[count] = (struct pollfd){.fd = descriptor, .events = events};
	return (int)count++;
}

void poller_wake_at(int64_t at_ns)
{
	if (at_ns < wake_at)
		wake_at = at_ns;
}

void poller_wait(void)
{
	struct timespec timeout = {0}, *limit = NULL;
	if (wake_at != INT64_MAX) {
		int64_t left = wake_at - clock_ns();
		if (left > 0)
			timeout = (struct timespec){left / 1000000000, left % 1000000000};
		limit = &timeout;
	}
	if (ppoll(descriptors, count, limit, NULL) >= 0)
		return;
	for (size_t i = 0; i < count; i++)
		descriptors[i].revents = 0;
}

bool poller_ready(int place)
{
	return place != NOT_POLLED && descriptors[place].revents != 0;
}
