#define _GNU_SOURCE
#include "listener.h"

#include "poller.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SELF_SERVICE_PATH "/run/mitos.sock"

static struct listener self_service = {.socket = -1, .place = NOT_POLLED};
static struct listener proxy = {.socket = -1, .place = NOT_POLLED}; /* opened by the first who asks */

static int bind_and_listen(int socket, const struct sockaddr *address, socklen_t size)
{
	if (socket < 0 || bind(socket, address, size) < 0 || listen(socket, SOMAXCONN) < 0) {
		int error = errno;
		if (socket >= 0)
			close(socket);
		errno = error;
		return -1;
	}
	return socket;
}

/* Every user of the sandbox may ask: what may be done is the sandbox's budget, not the user's. */
void listener_start(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SELF_SERVICE_PATH};
	mkdir("/run", 0755);
	unlink(SELF_SERVICE_PATH);
	int unbound = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	self_service.socket = bind_and_listen(unbound, (struct sockaddr *)&address, sizeof address);
	if (self_service.socket < 0)
		self_service.error = errno;
	else
		chmod(SELF_SERVICE_PATH, 0666);
}

struct listener *listener_of_self_service(int *error)
{
	*error = self_service.error;
	return self_service.socket < 0 ? NULL : &self_service;
}

struct listener *listener_of_port(uint16_t port, int *error)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int on = 1;
	if (proxy.socket >= 0) {
		*error = EBUSY;
		return proxy.port == port ? &proxy : NULL;
	}
	int unbound = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(unbound, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	proxy.socket = bind_and_listen(unbound, (struct sockaddr *)&address, sizeof address);
	proxy.port = port;
	*error = errno;
	return proxy.socket < 0 ? NULL : &proxy;
}

int listener_accept(const struct listener *listener)
{
	if (!poller_ready(listener->place))
		return -1;
	int connection = accept4(listener->socket, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
	if (connection >= 0 && listener == &proxy)
		setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return connection;
}

static void prepare(struct listener *listener)
{
	listener->place = listener->wanted ? poller_add(listener->socket, POLLIN) : NOT_POLLED;
	listener->wanted = false;
}

void listener_prepare(void)
{
	prepare(&self_service);
	prepare(&proxy);
}
