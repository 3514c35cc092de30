"""The driver: steps every open session, whoever opened it. Files, microphones and sockets all end
here."""

from kiku.scheduler.binding import Binding, Job, Member, OnOutput, Opening, Session, SlotOptions
from kiku.scheduler.scheduler import Scheduler
from kiku.scheduler.steps import levels_of

__all__ = [
    "Binding",
    "Job",
    "Member",
    "OnOutput",
    "Opening",
    "Scheduler",
    "Session",
    "SlotOptions",
    "levels_of",
]
