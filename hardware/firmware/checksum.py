"""Print the checksum of a program, with which the board's self-test compares what is in the chip.

It is the CRC of protocol.h before its inversion, over the bytes of the binary file named.
"""

import binascii
import sys
from pathlib import Path

sys.stdout.write(f"{binascii.crc_hqx(Path(sys.argv[1]).read_bytes(), 0xFFFF)}\n")
