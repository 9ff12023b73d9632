"""gunicorn's settings: two workers on one mount. `python -m gunicorn` in this directory finds them.

Options of the command line go before what is written here.
"""

wsgi_app = "app:app"
worker_class = "asgi"  # gunicorn's own; uvicorn's worker class for gunicorn is deprecated
workers = 2
bind = "127.0.0.1:8000"

# A reader cannot be used in a child of the process that made it, so each worker imports the application for itself.
preload_app = False

# Seconds without a sign of life until a worker is killed; its start counts, and may take SERVING_STARTUP_SECONDS.
timeout = 30
# Seconds that requests get to finish after SIGTERM.
graceful_timeout = 10

# It would be a thread in the process that forks.
control_socket_disable = True


def post_fork(server, worker):
    """In the worker, before it takes a request: a store that cannot be opened ends gunicorn, and its log says why.

    The application's lifespan starts the reader too, which does nothing after this, and shuts it down. worker_exit
    would be the wrong place for that: the master may call it as well, for a worker that it finds gone.
    """
    import app

    app.start()
