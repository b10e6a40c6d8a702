"""A TCP proxy on loopback that can be slow, and can be cut."""
import asyncio
import threading
import time


class TcpProxy:
    """From a port of its own (`port`) to 127.0.0.1:`target`; `delay_s` is added to what passes, either way."""

    def __init__(self, target):
        self.target, self.delay_s = target, 0.0
        self._cut_until, self._writers = 0.0, set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self, seconds):
        """Breaks every connection, and lets none pass for that long."""
        self._cut_until = time.monotonic() + seconds
        self._loop.call_soon_threadsafe(self._break_all)

    def close(self):
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._break_all)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def _break_all(self):
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader, writer):
        if time.monotonic() < self._cut_until:
            writer.transport.abort()
            return
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, other_writer}
        await asyncio.gather(self._pass(reader, other_writer), self._pass(other_reader, writer))

    async def _pass(self, reader, writer):
        queue = asyncio.Queue(1000)
        sender = asyncio.create_task(self._send(queue, writer))
        try:
            while data := await reader.read(1 << 16):
                await queue.put((time.monotonic() + self.delay_s, data))
        except OSError:
            pass
        await queue.put((0, b""))
        await sender

    async def _send(self, queue, writer):
        try:
            while True:
                due, data = await queue.get()
                if not data:
                    break
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()
