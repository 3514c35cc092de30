"""How the reading of one container went: packets, damage, and where sound and other tracks end.

Does not know what a packet holds.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

# A jump in the sound's timestamps is a hole, and not a restart of its clock, if another track goes
# on in the first seconds of it. Second number: most seconds of other tracks that are remembered.
_FILL_S, _MAX_OTHERS = 10, 100_000


@dataclass(slots=True)
class Course:
    """How the reading of one container went."""

    num_packets: int = 0
    """Packets of the audio track."""
    last_packet: "Packet[Stream] | None" = None
    """The last packet of the audio track."""
    num_damaged: int = 0
    """Packets that could not be decoded."""
    num_damaged_last: int = 0
    """Packets that could not be decoded, after the last good frame."""
    file_end_s: float = 0.0
    """Second at which the last packet of any track ends."""
    gave_up: bool = False
    """Whether the demuxer failed before the end."""
    lacked_memory: bool = False
    """Whether FFmpeg asked for more memory than there is."""

    sound_end_s: float = 0.0
    """Second at which the last packet of the audio track ends."""
    others: set[int] = field(default_factory=set[int])
    """Whole seconds after `sound_end_s` in which packets of other tracks begin."""
    filled_s: float | None = None
    """Start of the last packet of the audio track before which other tracks filled a hole."""

    def is_filled(self, start_s: float) -> bool:
        """Whether other tracks went on during a hole in the sound that ends at `start_s`."""
        return self.filled_s is not None and abs(start_s - self.filled_s) < 1

    def note(self, start_s: float, seconds: float, *, is_sound: bool) -> None:
        """Take note of the time of a packet, of the audio track or of another."""
        self.file_end_s = max(self.file_end_s, start_s + seconds)
        if not is_sound:
            if len(self.others) < _MAX_OTHERS:
                self.others.add(math.floor(start_s))
            return
        begun = math.floor(self.sound_end_s) + 1
        if start_s > begun and any(begun + i in self.others for i in range(_FILL_S)):
            self.filled_s = start_s
        self.sound_end_s = start_s + seconds
        if len(self.others) > 2 * _FILL_S:
            self.others = {second for second in self.others if second >= self.sound_end_s}
