/* What the event loop waits for. Everything that waits adds itself again before each wait: nothing to unregister. */
#ifndef MITOS_POLLER_H
#define MITOS_POLLER_H

#include <stdbool.h>
#include <stdint.h>

enum { NOT_POLLED = -1 };

void poller_reset(void);
/* Waits for `events` on the descriptor; returns a place for poller_ready. */
int poller_add(int descriptor, short events);
/* Wakes the loop no later than this time of clock_ns. */
void poller_wake_at(int64_t at_ns);
void poller_wait(void);
/* True when the last wait found the descriptor at this place ready, or broken. */
bool poller_ready(int place);

/* Monotonic nanoseconds in which the sandbox ran: the clock of every deadline. It is held while the agent is frozen, and
 * so through every pause and snapshot. */
int64_t clock_ns(void);
void clock_hold(void);
/* Lets it go on from where it was held; does nothing when it was not. */
void clock_release(void);

#endif
