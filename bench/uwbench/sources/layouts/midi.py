"""Read the notes of a piano performance from its MIDI file."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from uwbench.audio.clip import Event
from uwbench.errors import DataError

_SUSTAIN = 64  # MIDI controller number of the sustain pedal
_DOWN = 64  # the pedal is down from this value on (MIDI 1.0)


def read_notes(path: Path) -> tuple[Event, ...]:
    """Return the notes of a MIDI file in order of onset, labelled by MIDI pitch.

    A note lasts as long as it sounds: until its key and the sustain pedal are both up, or the same key is struck again,
    as in Hawthorne et al. (ICLR 2019). All channels are one piano. Notes without duration are left out. Raises
    DataError if the file cannot be read.
    """
    import mido
    from mido.midifiles.meta import KeySignatureError

    try:
        # Read from memory, because mido would allocate as many bytes as a damaged header claims.
        notes = _sounding(mido.MidiFile(file=io.BytesIO(path.read_bytes())))
    except (OSError, EOFError, ValueError, LookupError, ArithmeticError, TypeError, KeySignatureError) as error:
        raise DataError(f"the MIDI file cannot be read ({error or type(error).__name__})", where=path) from error
    return tuple(sorted(note for note in notes if note.offset_s > note.onset_s))


def _sounding(messages: Iterable[Any]) -> list[Event]:
    notes: list[Event] = []
    struck: dict[int, float] = {}  # pitch -> onset of each sounding note
    released: set[int] = set()  # pitches whose key is up while the pedal sustains them
    pedal = False
    now = 0.0

    def end(pitch: int) -> None:
        notes.append(Event(struck.pop(pitch), now, str(pitch)))
        released.discard(pitch)

    for message in messages:
        now += message.time
        if message.type == "note_on" and message.velocity > 0:
            if message.note in struck:
                end(message.note)
            struck[message.note] = now
        elif message.type in ("note_on", "note_off"):
            if message.note in struck:
                if pedal:
                    released.add(message.note)
                else:
                    end(message.note)
        elif message.type == "control_change" and message.control == _SUSTAIN:
            pedal = message.value >= _DOWN
            if not pedal:
                for pitch in sorted(released):
                    end(pitch)
    for pitch in sorted(struck):
        end(pitch)
    return notes
