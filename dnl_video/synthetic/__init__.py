"""Generated videos: scenes, classes of motion, and the demo's data set in the official Kinetics layout."""
