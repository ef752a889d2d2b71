"""The QuickFIX engine: settings of sessions, and the one application that receives its calls."""
