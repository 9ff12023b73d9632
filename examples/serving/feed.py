"""Writes features while they are served: all users once, then now this one, now that one.

python feed.py --users 1000 --seconds 10
"""

from __future__ import annotations

import argparse
import random
import struct
import time

from ikvcore.client import IKVWriter
from ikvcore.clientoptions import ClientOptions
from ikvcore.document import IKVDocument
from ikvcore.factory import create_new_writer

CITIES = ["Bergen", "Oslo", "Stavanger", "Tromsø"]
BATCH = 100
PAUSE = 0.01


def new_user(number: int) -> IKVDocument:
    """Everything that is known of a user."""
    embedding = struct.pack("<4f", *(random.random() for _ in range(4)))
    city = random.choice(CITIES)
    return IKVDocument.from_dict({"user_id": f"user-{number}", "city": city, "clicks": 0, "embedding": embedding})


def click(number: int, clicks: int) -> IKVDocument:
    """What changes when a user clicks: the other fields stay."""
    return IKVDocument.from_dict({"user_id": f"user-{number}", "clicks": clicks, "score": random.random()})


def feed(writer: IKVWriter, users: int, seconds: float) -> None:
    for first in range(0, users, BATCH):
        writer.upsert_fields_batch([new_user(number) for number in range(first, min(first + BATCH, users))])
    print(f"{users:,} users written", flush=True)
    until, clicks = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        clicks += 1
        writer.upsert_fields_batch([click(random.randrange(users), clicks) for _ in range(10)])
        time.sleep(PAUSE)
    print(f"{10 * clicks:,} clicks written", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write features while they are served.")
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    with create_new_writer(ClientOptions.from_env()) as writer:
        feed(writer, arguments.users, arguments.seconds)


if __name__ == "__main__":
    main()
