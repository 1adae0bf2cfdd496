"""Live recognition by sherpa-onnx over a WebSocket, as its Python examples do it. Runs in the environment that has it:

    python sherpa_server.py DIR PORT        binary float32 samples at 16 kHz in, all text so far out; "Done" ends
    python sherpa_server.py DIR 0 FILE.npy  prints after how many samples each text is there, without a server, as JSON

One thread decodes all streams that are ready together, and the event loop does the rest. Imports nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import sherpa_onnx
import websockets

RATE, PACKET, TOGETHER = 16000, 960, 8


def recognizer(directory: Path) -> Any:
    """The live model of a directory, in one thread."""
    (encoder,), (decoder,) = directory.glob("encoder*.onnx"), directory.glob("decoder*.onnx")
    return sherpa_onnx.OnlineRecognizer.from_paraformer(
        tokens=str(directory / "tokens.txt"), encoder=str(encoder), decoder=str(decoder), num_threads=1
    )


def positions(tool: Any, samples: np.ndarray) -> list[tuple[int, int]]:
    """(characters, samples that had to come for them), packet by packet."""
    stream, found = tool.create_stream(), []
    for start in range(0, len(samples), PACKET):
        stream.accept_waveform(RATE, samples[start : start + PACKET])
        while tool.is_ready(stream):
            tool.decode_stream(stream)
        length = len(tool.get_result(stream))
        if length and (not found or found[-1][0] != length):
            found.append((length, start + PACKET))
    return found


class Server:
    """Streams that wait for a step, and the loop that takes some of them together."""

    def __init__(self, tool: Any) -> None:
        self.tool, self.waiting = tool, asyncio.Queue()
        self.thread = ThreadPoolExecutor(1)

    async def step(self) -> None:
        """Decode together what is ready, for ever."""
        while True:
            batch = [await self.waiting.get()]
            while len(batch) < TOGETHER and not self.waiting.empty():
                batch.append(self.waiting.get_nowait())
            streams = [stream for stream, _ in batch]
            await asyncio.get_running_loop().run_in_executor(self.thread, self.tool.decode_streams, streams)
            for _, done in batch:
                done.set_result(None)

    async def serve(self, socket: Any) -> None:
        """One connection."""
        stream, told = self.tool.create_stream(), ""
        async for message in socket:
            if isinstance(message, str):
                stream.input_finished()
            else:
                stream.accept_waveform(RATE, np.frombuffer(message, np.float32))
            while self.tool.is_ready(stream):
                done = asyncio.get_running_loop().create_future()
                self.waiting.put_nowait((stream, done))
                await done
            text = self.tool.get_result(stream)
            if text != told:
                told = text
                await socket.send(json.dumps({"text": text}))
            if isinstance(message, str):
                return


async def main(tool: Any, port: int) -> None:
    """Serve until killed."""
    server = Server(tool)
    stepping = asyncio.create_task(server.step())
    async with websockets.serve(server.serve, "127.0.0.1", port, compression=None):
        print("ready", flush=True)
        await stepping


if __name__ == "__main__":
    made = recognizer(Path(sys.argv[1]))
    if len(sys.argv) > 3:
        print(json.dumps(positions(made, np.load(sys.argv[3]))))
    else:
        asyncio.run(main(made, int(sys.argv[2])))
