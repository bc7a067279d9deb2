"""Networks of sites: relay over trusted nodes, shares over several paths, routes, costs. No I/O."""
