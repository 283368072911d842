"""What a command does where it is more than one call: load or sample, judge, draw, write."""
