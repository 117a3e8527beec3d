"""Speaks one sentence with hibari through a Speaker, and prints how many samples it was."""

import asyncio
import time

from hearmeman_voice.engine import Request, Spec, Voice
from hearmeman_voice.speaker import Speaker

if __name__ == "__main__":
    speaker = Speaker(Spec("hibari"))
    speaker.start()
    while not speaker.state()["loaded"] and not speaker.broken.is_set():
        time.sleep(0.02)

    async def speak() -> int:
        return sum([len(block) async for block in speaker.speak(Request("This stays in this house.", Voice("heart")))])

    print(asyncio.run(speak()))
    speaker.close()
