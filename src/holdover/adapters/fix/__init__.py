"""FIX 4.4 over TCP with QuickFIX: the simulated venue as an acceptor, the desk's link and feed as initiators."""
