"""Where in each hit the object is: LOST in one image, and seeds carried over from a query."""

from spatial_retrieval.localize.lost import LostResult, lost, lost_objects
from spatial_retrieval.localize.photographs import (
    find_in_photographs,
    fine_layer,
    on_photograph,
    prepare_photograph,
)
from spatial_retrieval.localize.query import Query, prepare_query
from spatial_retrieval.localize.regions import Region
from spatial_retrieval.localize.seeded import THRESHOLD, Localization, find, localize

__all__ = [
    "THRESHOLD",
    "Localization",
    "LostResult",
    "Query",
    "Region",
    "find",
    "find_in_photographs",
    "fine_layer",
    "localize",
    "lost",
    "lost_objects",
    "on_photograph",
    "prepare_photograph",
    "prepare_query",
]
