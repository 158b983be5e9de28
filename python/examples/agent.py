#!/usr/bin/env python3
"""An agent: the model calls functions of this program until it can answer. agent.py [--model M.g4] [QUESTION...]"""

import argparse
from typing import Literal

from gemma4c import Engine

MAX_ROUNDS = 8  # a model may call for ever
SHOPPING: "dict[str, int]" = {}


def get_weather(city: str) -> dict:
    """Get the weather in a city.

    Args:
        city: City
    """
    return {"sky": "sunny" if len(city) % 2 == 0 else "rainy", "temperature": 10 + len(city)}


def add_item(item: str, count: int) -> dict:
    """Put an item on the shopping list.

    Args:
        item: Item
        count: How many
    """
    SHOPPING[item] = SHOPPING.get(item, 0) + count
    return {"count": SHOPPING[item]}


def convert(amount: float, unit: Literal["miles", "kilometers"]) -> dict:
    """Convert a length.

    Args:
        amount: Amount
        unit: Target unit
    """
    return {"result": round(amount / 1.609344 if unit == "miles" else amount * 1.609344, 1)}


TOOLS = [get_weather, add_item, convert]


def solve(session, question):
    """Ask, carry out what is called for, and tell the results, until there is an answer in words."""
    answer = session.respond(question, tools=TOOLS, temperature=0, max_tokens=300)
    for _ in range(MAX_ROUNDS):
        if not answer.calls:
            break
        results = []
        for call in answer.calls:
            results.append(call.run())
            print(f"  {call.name}({call.arguments}) -> {results[-1].content}")
        answer = session.respond(results, tools=TOOLS, temperature=0, max_tokens=300)
    return answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("questions", nargs="*", default=["What is the weather in Oslo?", "Put 3 eggs on the shopping list.",
                                                        "What is the weather in Rome?"])
    args = parser.parse_args()
    with Engine(args.model) as engine:
        for question in args.questions:
            print(question)
            with engine.session() as session:
                print(f"  {solve(session, question)}")
    print(f"shopping list: {SHOPPING}")


if __name__ == "__main__":
    main()
