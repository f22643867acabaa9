"""The studio: a page in the browser to sample, compare, restore, tune and look methods up (`fewstep studio`).

`work/` holds what each tab does, without a widget; `tabs/` the widgets; `server.py` brings them to the browser.
"""
