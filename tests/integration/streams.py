"""Many seeded streams at once against a server, recorded as a history for history_audit."""
import http.client
import json
import threading

from conftest import MODEL_ID

PROMPTS = ["Once upon a time, in a small village by the sea,", "The three laws of thermodynamics say that",
           "Dear diary, today I learned", "A recipe for bread: first", "In the year 2150 the city of",
           "def fibonacci(n):\n    ", "The most important thing about friendship is", "List of rivers in Europe:"]


class Load:
    """`count` streams of `tokens` tokens each, begun together; a part greedy, most at temperature 0.8."""

    def __init__(self, address, count, tokens, timeout_s=120):
        self.address, self.timeout_s = address, timeout_s
        self.history, self._lock = [], threading.Lock()
        self._some = threading.Condition(self._lock)
        self._threads = [threading.Thread(target=self._stream, args=(number, tokens), daemon=True)
                         for number in range(count)]
        for thread in self._threads:
            thread.start()

    def wait_for_tokens(self, count, timeout_s=60):
        """Until that many tokens have come, or all streams are over."""
        with self._lock:
            assert self._some.wait_for(lambda: len(self.history) >= count or not self.running(), timeout_s)

    def running(self):
        return any(thread.is_alive() for thread in self._threads)

    def finish(self):
        for thread in self._threads:
            thread.join(self.timeout_s)
            assert not thread.is_alive(), "a stream hangs"
        return self.history

    def _record(self, record):
        with self._lock:
            self.history.append(record)
            self._some.notify_all()

    def _stream(self, number, tokens):
        name = f"stream-{number}"
        body = {"model": MODEL_ID, "prompt": f"{number}. " + PROMPTS[number % len(PROMPTS)] * (1 + number % 3),
                "max_tokens": tokens, "temperature": 0.8 if number % 4 else 0, "seed": number, "ignore_eos": True,
                "stream": True, "return_token_ids": True}
        if number % 5 == 4:
            body |= {"frequency_penalty": 0.5, "presence_penalty": 0.2}
        index = 0
        try:
            connection = http.client.HTTPConnection(self.address, timeout=self.timeout_s)
            connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
            for line in connection.getresponse():
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    return self._record({"request": name, "finish": f"error: {chunk['error']['message']}"})
                for choice in chunk.get("choices", []):
                    for token in choice.get("token_ids") or []:
                        self._record({"request": name, "index": index, "token": token})
                        index += 1
                    if choice.get("finish_reason"):
                        self._record({"request": name, "finish": choice["finish_reason"]})
        except (OSError, http.client.HTTPException) as fault:
            self._record({"request": name, "finish": f"connection: {fault}"})


def run(address, count, tokens, timeout_s=120):
    return Load(address, count, tokens, timeout_s).finish()
