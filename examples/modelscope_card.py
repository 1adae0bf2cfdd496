# /// script
# requires-python = ">=3.11"
# dependencies = ["paraformer"]
# ///
"""A program written for ModelScope's pipeline, with only its import lines changed: `python modelscope_card.py [MODEL]`.

MODEL is a directory or, with the extra [hub], the name of a published model, for example
damo/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-online.
"""

from __future__ import annotations

import sys
from importlib.resources import files

from paraformer import audio
from paraformer.compat import Tasks, pipeline


def main() -> None:
    inference = pipeline(
        task=Tasks.auto_speech_recognition,
        model=sys.argv[1] if len(sys.argv) > 1 else str(files("paraformer") / "models" / "zh-small"),
        model_revision="v1.0.7",
        update_model=False,
        mode="paraformer_streaming",
    )
    speech = audio.read(str(files("paraformer") / "samples" / "weather.flac"))

    param_dict = {"cache": {}, "is_final": False, "chunk_size": [5, 10, 5]}
    step = param_dict["chunk_size"][1] * 960  # 600 ms
    offset = 0
    while offset < len(speech):
        if offset + step >= len(speech) - 1:
            step = len(speech) - offset
            param_dict["is_final"] = True
        result = inference(audio_in=speech[offset : offset + step], param_dict=param_dict)
        if len(result):
            print(result["text"])
        offset += step


if __name__ == "__main__":
    main()
