"""Devices that speak the relay's protocol, as the shipped apps do: for trying things by hand, and for tests.

    link               one WebSocket to the server, and ways to lose it
    memory             what a device remembers between connections: credentials, and the last event it has seen
    acknowledging      when each of the apps acknowledges events. Pure
    device             one device: registers, beats, acknowledges, connects again
    desktop            answers calls, streams terminals; with methods and terminal_output, which are pure
    phone              calls, and binds terminals
    terminal_frames    bytes of a terminal as they travel. Pure
    announcing         what the apps ask over HTTP before they connect
"""
