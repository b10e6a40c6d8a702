"""Running streams while a long prompt arrives: when each token came, read by one thread with little work a token."""
import asyncio
import json
import random
import time
import urllib.parse

LONG_PROMPT_TOKENS = 2000
# Ordinary tokens of SmolLM2's vocabulary: no control tokens (below 17), no bytes.
TOKEN_RANGE = (300, 40000)


def percentile(samples, share):
    """Linear between the two nearest samples."""
    ordered = sorted(samples)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def random_prompt(count, seed):
    numbers = random.Random(seed)
    return [numbers.randrange(*TOKEN_RANGE) for _ in range(count)]


class Stream:
    """One streamed completion; `times` are the arrivals of its pieces of text."""

    def __init__(self, url, prompt, max_tokens):
        self.address = urllib.parse.urlparse(url)
        # min_tokens bans the end tokens: every token is text, and the answer has its full length.
        self.body = json.dumps({"model": "", "prompt": prompt, "max_tokens": max_tokens, "min_tokens": max_tokens,
                                "temperature": 0, "stream": True})
        self.times = []
        self.ended = False
        self.fault = ""

    async def run(self, model):
        body = self.body.replace('"model": ""', f'"model": {json.dumps(model)}', 1).encode()
        reader, writer = await asyncio.open_connection(self.address.hostname, self.address.port)
        self.start = time.monotonic()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                     b"Connection: close\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
        try:
            await self._read(reader)
        finally:
            self.ended = True
            writer.close()

    async def _read(self, reader):
        if not (status := await reader.readline()).startswith(b"HTTP/1.1 200"):
            self.fault = (status + await reader.read(1000)).decode(errors="replace")
            return
        while line := await reader.readline():
            arrived = time.monotonic()
            if line.startswith(b"data: {") and b'"text":""' not in line:
                self.times.append(arrived)
            elif line.startswith(b"data: [DONE]"):
                return

    def gaps(self, begin, end):
        """Times between pieces that came in (begin, end]; one still open at `end` counts as far as it goes."""
        found = [b - a for a, b in zip(self.times, self.times[1:]) if begin < b <= end]
        last = [t for t in self.times if t <= end]
        if last and not self.ended and end - last[-1] > max(found, default=0):
            found.append(end - last[-1])
        return found


async def _first_text(stream, task):
    while not stream.times and not task.done():
        await asyncio.sleep(0.002)
    if not stream.times:
        raise RuntimeError(f"a stream gave no text: {stream.fault}")
    return stream.times[0] - stream.start


async def _alone(url, model, seed):
    stream = Stream(url, random_prompt(LONG_PROMPT_TOKENS, seed), 4)
    task = asyncio.create_task(stream.run(model))
    ttft = await _first_text(stream, task)
    await task
    return ttft


async def _disturbed(url, model, streams, seed, calm_s):
    running = [Stream(url, random_prompt(24, seed * 100 + i), 900) for i in range(streams)]
    tasks = [asyncio.create_task(stream.run(model)) for stream in running]
    for stream, task in zip(running, tasks):
        await _first_text(stream, task)
    await asyncio.sleep(0.5)
    calm_begin = time.monotonic()
    await asyncio.sleep(calm_s)
    arrival = time.monotonic()
    prompt = Stream(url, random_prompt(LONG_PROMPT_TOKENS, seed * 100 + 99), 4)
    prompt_task = asyncio.create_task(prompt.run(model))
    ttft = await _first_text(prompt, prompt_task)
    end = prompt.times[0]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await prompt_task
    return {"calm": [gap for s in running for gap in s.gaps(calm_begin, arrival)],
            "during": [gap for s in running for gap in s.gaps(arrival, end)],
            "ended_early": sum(s.times[-1] < arrival for s in running), "ttft_s": ttft}


def summary(gaps):
    return {"samples": len(gaps), "p50_ms": 1e3 * percentile(gaps, 0.5), "p99_ms": 1e3 * percentile(gaps, 0.99),
            "max_ms": 1e3 * max(gaps)}


def measure(url, model, streams, arrivals, calm_s, seed):
    """Inter-token times of `streams` streams before and while a long prompt arrives, pooled over `arrivals`."""
    calm, during, ttft_alone, ttft, ended_early = [], [], [], [], 0
    for arrival in range(arrivals):
        ttft_alone.append(asyncio.run(_alone(url, model, seed * 1000 + arrival)))
        seen = asyncio.run(_disturbed(url, model, streams, seed * 1000 + 500 + arrival, calm_s))
        calm += seen["calm"]
        during += seen["during"]
        ttft.append(seen["ttft_s"])
        ended_early += seen["ended_early"]
    result = {"streams": streams, "undisturbed": summary(calm), "during_prompt": summary(during),
              "prompt_ttft_alone_s": ttft_alone, "prompt_ttft_s": ttft, "streams_ended_early": ended_early}
    result["itl_p99_ratio"] = result["during_prompt"]["p99_ms"] / result["undisturbed"]["p99_ms"]
    result["ttft_ratio"] = percentile(ttft, 0.5) / percentile(ttft_alone, 0.5)
    return result
