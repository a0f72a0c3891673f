"""Starts the default Python context, and listens once that runs code."""

import asyncio

from flames_code_interpreter import server

asyncio.run(server.serve())
