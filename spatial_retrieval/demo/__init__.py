"""The demo: a service without gradio, and the page that draws it."""
