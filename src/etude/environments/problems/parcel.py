"""Who sent the parcel {parcel}, and who gets it?"""

KIND = "lookup"


def inputs(rng, size):
    parcels = rng.names(size)
    return {"sender": rng.table(parcels), "receiver": rng.table(parcels), "parcel": rng.choice(parcels)}


def answer(sender: dict[str, str], receiver: dict[str, str], parcel: str) -> list[str]:
    return [sender[parcel], receiver[parcel]]
