"""The page in a browser: what it computes (`jets`), the page itself (`page`), and its folder for the Hub (`space`)."""
