/* A boot loader in the chip's flash, as a real board has one (option --boot-loader): it is started
 * at every reset, as with the fuse BOOTRST programmed, and starts the firmware itself. */
#include "emulator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <simavr/sim_hex.h>

void bootloader_load(const char *path)
{
    ihex_chunk_p chunks = NULL;
    int count = read_ihex_chunks(path, &chunks);
    if (count < 1) {
        fprintf(stderr, "emulator: %s: not an Intel HEX file\n", path);
        exit(1);
    }
    avr->reset_pc = chunks[0].baseaddr;
    for (int i = 0; i < count; i++) {
        if (chunks[i].baseaddr + chunks[i].size > avr->flashend + 1) {
            fprintf(stderr, "emulator: %s: does not fit into the flash\n", path);
            exit(1);
        }
        memcpy(avr->flash + chunks[i].baseaddr, chunks[i].data, chunks[i].size);
        if (chunks[i].baseaddr < avr->reset_pc)
            avr->reset_pc = chunks[i].baseaddr;
    }
    free_ihex_chunks(chunks);
    avr->pc = avr->reset_pc;
}
