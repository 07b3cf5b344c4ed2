"""Two ways of computing one thing, timed in turns in one run: ours and a plain transcription of the papers."""
