"""How many live streams one engine keeps up with: a simulation of clients around steps that are really run.

Nothing sleeps. The clock of the simulation jumps to the next packet's arrival when the engine is idle, and moves on by
the measured time of a step when it works, so a search takes the computing time alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil


def latencies(
    streams: int, packets: int, period_s: float, step: Callable[[list[int]], float], *, together: bool
) -> Iterator[float]:
    """Seconds from each packet's arrival to the end of its step, in the order of the steps.

    Every stream delivers a packet each period_s; the streams' first packets are spread evenly over the first period.
    step: takes in one packet of each stream in the list, returns the seconds that it took. together: it is given all
    packets that have arrived by its start, else the first alone.
    """
    arrivals = [
        ((packet + stream / streams) * period_s, stream) for packet in range(packets) for stream in range(streams)
    ]
    clock, first = 0.0, 0
    while first < len(arrivals):
        clock, last = max(clock, arrivals[first][0]), first + 1
        while together and last < len(arrivals) and arrivals[last][0] <= clock:
            last += 1
        clock += step([stream for _, stream in arrivals[first:last]])
        yield from (clock - time for time, _ in arrivals[first:last])
        first = last


def in_time(found: Iterable[float], count: int, limit_s: float, share: float) -> bool:
    """Whether at least this share of count latencies is within the limit; stops at the first that makes it impossible.

    Of the last quarter at most one more than its part may be late, so that a queue that only begins to grow does not
    pass for a steady state.
    """
    spare, tail_spare = int(count * (1 - share) + 1e-9), int(count / 4 * (1 - share)) + 1
    for index, latency in enumerate(found):
        if latency <= limit_s:
            continue
        spare -= 1
        tail_spare -= index >= count * 0.75
        if spare < 0 or tail_spare < 0:
            return False
    return True


def largest(passes: Callable[[int], bool], guess: int) -> int:
    """The largest number that passes, to within about 3 %, if all below it do; 0 if not even 1 does."""
    low, high = 0, 0  # the largest seen to pass, the smallest seen to fail; 0: none yet
    number = max(guess, 1)
    while True:
        if passes(number):
            low = number
        else:
            high = number
        if high and high - low <= max(1, high // 32):
            return low
        if not high:
            number = low + max(1, low // 8)
        elif not low:
            number = high - max(1, high // 8)
            if number == 0:
                return 0
        else:
            number = (low + high) // 2


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of the values do not exceed."""
    return sorted(values)[max(0, ceil(len(values) * percent / 100) - 1)]
