"""FIX 4.4 over TCP on QuickFIX: our venue as an acceptor, and the desk's link and feed as initiators."""
