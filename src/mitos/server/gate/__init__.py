"""Who may call: every request passes the gate once, before anything is looked up or read.

What is in which module:

    layer       the gate itself, and the table of what is open to everybody
    host        names this server is served under; without a key no other is (DNS rebinding)
    origin      which pages in a browser may call (cross-site requests), and their CORS headers
    credential  the bearer key
    preview     hosts of previews; the tokens and sessions that open one port of one sandbox
    caller      what the gate found out, for those who serve the request
"""
