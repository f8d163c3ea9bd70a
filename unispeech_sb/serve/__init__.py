"""The service: models behind HTTP and WebSockets, and a page that uses them.

``create_app`` makes the application, ``unispeech-sb serve`` runs it. A request
goes through ``guard.py`` (who may ask, how much), ``app.py`` (what is asked
for) and ``workers.py`` (one job at a time in each model); ``streams.py`` is for
recordings that go on, ``answers.py`` has the forms of OpenAI's interface, and
``page/`` the page.
"""
