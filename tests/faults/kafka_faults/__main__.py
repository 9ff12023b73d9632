"""`make faults TRANSPORT=kafka`: runs the campaigns on Kafka brokers of their own and writes their table."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ikvcore.testing.faults.__main__ import parser, run_campaigns
from ikvcore.testing.faults.campaigns import Campaign
from ikvcore.testing.faults.target import Pair

_HERE = "kafka_faults"

CAMPAIGNS = {
    "broker-killed": Campaign(function=f"{_HERE}.outages:killed", short={"times": 3}, full={"times": 20}),
    "broker-frozen": Campaign(function=f"{_HERE}.outages:frozen", short={"times": 3}, full={"times": 20, "lanes": 4}),
    "leader-killed": Campaign(function=f"{_HERE}.outages:leaders", short={"times": 3}, full={"times": 20}),
    "log-overtaken": Campaign(
        function=f"{_HERE}.overtaken:run", short={"times": 3, "lanes": 3}, full={"times": 20, "lanes": 3}
    ),
    "topic-made-again": Campaign(
        function=f"{_HERE}.made_again:run", short={"times": 3, "lanes": 3}, full={"times": 20, "lanes": 4}
    ),
    "bad-messages": Campaign(
        function=f"{_HERE}.poison:run", short={"times": 3, "lanes": 3}, full={"times": 20, "lanes": 3}
    ),
    "slow-reader": Campaign(function=f"{_HERE}.slow:run", short={"times": 3}, full={"times": 20}),
    "killed-producers": Campaign(function=f"{_HERE}.producers:run", short={"times": 3}, full={"times": 20}),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 1 where something was violated."""
    given = parser(list(CAMPAIGNS))
    given.prog = "make faults TRANSPORT=kafka"
    return run_campaigns(CAMPAIGNS, given.parse_args(arguments), Pair(), of="kafka", command=given.prog)


if __name__ == "__main__":
    sys.exit(main())
