"""The relay: a user's devices find each other, call each other, and lose nothing, on one process or on many.

    session        one socket of a device, from its handshake to its end; the nursery `device`
    messages       what devices say and are told: text frames and terminal frames. Pure
    registration   who a socket is: new, or resumed
    outbox         what waits to be written to one socket
    hub, member    the registered sockets of this process
    roster         the links of a user's devices, on whichever process, and which desktop is the primary one
    bridge         letters to other processes, over Redis
    channels       what concerns a user, told to every process that has a socket of theirs
    events         ids, order, replay, gaps: lanes, history, cursors, late_events; event_frames and event_rules, pure
    calls          from a device to the primary desktop, and back: no call without an answer
    terminals      bytes from a desktop to a phone: confirmed, spooled, paused and bound again
"""
