"""The quantum report: how its jets are judged, and its tables, pages and pictures."""
