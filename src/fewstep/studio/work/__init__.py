"""What each tab of the studio does: a request, checked; a generator of what there is to see; and the request as Python.

None of these modules knows the browser.
"""
