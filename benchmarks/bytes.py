"""Trains under every codec on two divisions of the data, and writes the measured table into docs/bytes.md."""

from benchmarks.byte_jobs import ARMS, jobs
from benchmarks.byte_tables import tables
from benchmarks.campaign import Campaign
from common.command_line import run_command

BYTES_CAMPAIGN = Campaign("bytes", __doc__, [arm.name for arm in ARMS], jobs, tables)

if __name__ == "__main__":
    run_command(BYTES_CAMPAIGN.main, BYTES_CAMPAIGN.prog)
