/* Where programs of the sandbox connect to the agent: a TCP port, for the proxy, and a Unix socket, for self-service.
 * Both outlive a fork: who waits in the queue is copied with everything else, and served by the child's server. */
#ifndef MITOS_LISTENER_H
#define MITOS_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

struct listener {
	int socket, place;
	bool wanted; /* somebody waits for a connection; set anew each turn */
	int error;   /* why it does not listen, an errno */
	uint16_t port;
};

/* Listens on /run/mitos.sock; once, when the agent starts. */
void listener_start(void);
/* Both return NULL and set `*error` when the agent does not listen there. */
struct listener *listener_of_self_service(int *error);
struct listener *listener_of_port(uint16_t port, int *error);
/* The next connection, not blocking, or -1. */
int listener_accept(const struct listener *listener);
void listener_prepare(void);

#endif
