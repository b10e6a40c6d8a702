"""Runs inside a host's namespace: waits until the service is ready, asks with the openai client, then prints the
history of some streams, twice; before each a line says that they have begun."""
import json
import sys
import time
import urllib.error
import urllib.request

from openai import OpenAI

import streams
from conftest import MODEL_ID

STREAMS, TOKENS = 8, 48


def wait_until_ready(address, timeout_s=60):
    end = time.monotonic() + timeout_s
    while True:
        try:
            urllib.request.urlopen(f"http://{address}/readyz")
            return
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < end, "the service is not ready in time"
            time.sleep(0.05)


def main():
    address = sys.argv[1]
    wait_until_ready(address)
    client = OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0)
    answer = client.chat.completions.create(model=MODEL_ID, messages=[{"role": "user", "content": "Hello!"}],
                                            max_tokens=8)
    assert answer.choices[0].message.content
    for _ in range(2):
        load = streams.Load(address, STREAMS, TOKENS)
        load.wait_for_tokens(STREAMS * TOKENS // 4)
        print("under way", flush=True)
        for record in load.finish():
            print(json.dumps(record))


if __name__ == "__main__":
    main()
