"""Recognition by a server as other packages' clients ask for it. Runs in an environment that has the client, which may
be another than the tests': `python peer_clients.py CLIENT URL FILE.wav` prints JSON. Imports nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import sys
import wave
from typing import Any

PACKET = 3200


def samples(path: str) -> bytes:
    with wave.open(path) as file:
        return file.readframes(file.getnframes())


async def funasr_client(url: str, path: str) -> dict[str, Any]:
    """The package funasr-client, asynchronously: its own end, and what it decodes."""
    from funasr_client import async_funasr_client

    found: dict[str, Any] = {}
    for mode in ("2pass", "offline", "online"):
        messages: list[dict[str, Any]] = []
        client = async_funasr_client(url, mode=mode, wav_name="a", audio_fs=16000, callback=messages.append)
        await client.connect()
        data = samples(path)
        for start in range(0, len(data), PACKET):
            await client.send(data[start : start + PACKET])
        await client.close(timeout=60)
        found[mode] = {
            "final": bool(client.received_final),
            "texts": [(one["mode"], one["text"]) for one in messages],
            "stamps": sum(len(one.get("timestamp") or ()) for one in messages),
        }
    return found


async def funasr_python(url: str, path: str) -> dict[str, Any]:
    """The package funasr-python: a file, and what its callback is told."""
    from funasr_client import AsyncFunASRClient, SimpleCallback

    partial: list[str] = []
    client = AsyncFunASRClient(server_url=url, log_level="ERROR")
    try:
        callback = SimpleCallback(on_partial=lambda result: partial.append(result.text))
        result = await client.recognize_file(path, callback)
    finally:
        await client.close()
    return {"text": result.text, "partial": "".join(partial)}


async def livekit(url: str, path: str) -> dict[str, Any]:
    """LiveKit's OpenAI plugin: turns by the server's voice activity, interim and final texts."""
    import aiohttp
    from livekit import rtc
    from livekit.agents import stt
    from livekit.agents.utils import http_context
    from livekit.plugins import openai

    interim: list[str] = []
    final: list[str] = []

    async def listen(stream: Any) -> None:
        async for event in stream:
            if event.type == stt.SpeechEventType.INTERIM_TRANSCRIPT:
                interim.append(event.alternatives[0].text)
            elif event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
                final.append(event.alternatives[0].text)
                return

    async with http_context.open():
        base = url.replace("ws", "http", 1) + "/v1"
        recognizer = openai.STT(
            base_url=base, api_key="any", model="gpt-4o-transcribe", language="zh", use_realtime=True
        )
        stream = recognizer.stream()
        listening = asyncio.create_task(listen(stream))
        data = samples(path) + bytes(2 * 16000 * 2)  # silence ends the turn
        for start in range(0, len(data), PACKET):
            part = data[start : start + PACKET]
            stream.push_frame(rtc.AudioFrame(part, 16000, 1, len(part) // 2))
            await asyncio.sleep(0.01)
        await asyncio.wait_for(listening, 60)
        await stream.aclose()
    assert aiohttp
    return {"final": final, "interim": interim}


CLIENTS = {"funasr-client": funasr_client, "funasr-python": funasr_python, "livekit": livekit}

if __name__ == "__main__":
    name, address, recording = sys.argv[1:]
    print("\n" + json.dumps(asyncio.run(CLIENTS[name](address, recording))))
