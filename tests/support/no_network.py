"""Ends a process, and all that it starts, as soon as any code in it, native code too, makes an internet socket.

`python -m support.no_network MODULE ARGUMENTS...` runs a module so. A system call filter needs no tool and no right.
"""

from __future__ import annotations

import ctypes
import runpy
import struct
import sys

# prctl(2), seccomp(2) and <linux/filter.h>.
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
_X86_64, _SOCKET = 0xC000003E, 41
_AF_INET, _AF_INET6 = 2, 10


def forbid() -> None:
    """Do so from now on. Raises: OSError."""
    program = [
        (_LOAD, 0, 0, 4),
        (_EQUALS, 0, 5, _X86_64),
        (_LOAD, 0, 0, 0),
        (_EQUALS, 0, 3, _SOCKET),
        (_LOAD, 0, 0, 16),
        (_EQUALS, 2, 0, _AF_INET),
        (_EQUALS, 1, 0, _AF_INET6),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL),
    ]
    packed = b"".join(struct.pack("HBBI", *step) for step in program)
    steps = ctypes.create_string_buffer(packed)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(steps)))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((_NO_NEW_PRIVS, 1, 0, 0, 0), (_SECCOMP, _FILTER, ctypes.addressof(header), 0, 0)):
        if libc.prctl(call[0], *(ctypes.c_ulong(value) for value in call[1:])):
            raise OSError(ctypes.get_errno(), "the system call filter was not taken")


if __name__ == "__main__":
    forbid()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
